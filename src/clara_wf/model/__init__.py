"""What the product talks about: plans, payloads, jobs, states and errors.

Standard library only, no input or output beyond small files, and nothing of ours is imported here: every other room may
import this one. What knows Helm, DICOM, arrays or processes belongs elsewhere.
"""
