"""Payloads in a bucket: folders there and back.

Here belongs what speaks to a store of objects, over fsspec, so that any kind will do. What lies in a payload, and when
it travels, is said by who calls: the stage `transfer` in a cluster, a runner outside. No name of a file or an object
stands in an error or a log: patients' names have been seen in both.
"""

from clara_wf.bucket.transfer import Moved, fetch, remove, send, wait_for

__all__ = ["Moved", "fetch", "remove", "send", "wait_for"]
