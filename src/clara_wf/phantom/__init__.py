"""A made patient whose truth is known: test data and demonstrations without anybody's images.

Here belong the anatomy as data (shapes, parts), what a scanner makes of it (blur, noise, projections), its series in
DICOM, and the inputs of test jobs. Not here: reading or segmenting images (`clara_wf.imaging`, `clara_wf.inference`),
and reconstructing them (`clara_wf.reconstruction`), of which only geometry and file format are used.

Nothing here is a person: the patient's name is PHANTOM^ABDOMEN, and all unique identifiers are derived from the seed.
"""
