"""clara-wf: medical-imaging AI workflows, from DICOM to DICOM, on a laptop or on Kubernetes."""

__version__ = "0.1.0"
