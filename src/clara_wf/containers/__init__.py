"""Container images and the programs that make and run them: docker or podman.

Here belongs what talks to such a program, and how an image of a stage is put together. What a stage's container may see
and use is `runners`' to say; what a workflow consists of is the chart's.
"""
