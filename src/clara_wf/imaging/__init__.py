"""Images: their geometry and voxels, as MetaImage between stages and as DICOM at both ends.

What knows DICOM, MetaImage, resampling or drawing belongs here. What knows networks belongs to `inference`; what knows
jobs, folders of a payload or the stage contract belongs elsewhere.

The world frame is LPS in millimetres everywhere (x to the patient's Left, y Posterior, z Superior), which is DICOM's
own. Arrays are indexed ``[slice, row, column]``.
"""
