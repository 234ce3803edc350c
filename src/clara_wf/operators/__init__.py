"""The built-in stages: folder in, folder out, thin.

A stage reads its input folder, calls `imaging` and `inference`, and writes its output folder. What knows DICOM or
networks belongs there; nobody imports a stage, runners start it.
"""
