"""A made patient whose truth is known: test data and demonstrations without anybody's images.

Here belong the anatomy as data (shapes, parts), what a scanner makes of it (blur, noise), its CT series in DICOM, and
the inputs of test jobs. Not here: reading or segmenting images, and projections (`clara_wf.imaging`).

Nothing here is a person: the patient's name is PHANTOM^ABDOMEN, and all unique identifiers are derived from the seed.
"""
