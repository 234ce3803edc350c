"""The inference server as a stage sees it: one more `Network`, asked by KServe v2.

What speaks with a server belongs here: addresses, the protocols, shared memory, waiting and retries. Starting one on
this machine belongs to `trtis`; what a network is and how a volume goes through it to `inference`.
"""
