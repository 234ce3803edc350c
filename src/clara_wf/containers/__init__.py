"""Container images and the programs that make and run them: docker or podman.

Here belongs what talks to such a program, and how an image of a stage is put together. What a stage's container may see
and use is `runners`' to say; what a workflow consists of is the chart's.

An image is built in two steps. On this machine, the packages of its lock file are installed into a folder, freed of
what no stage uses, and compiled; they lie in a cache, by what they were made of. Then docker or podman copies that
folder and our own modules into the image. The Dockerfiles have no RUN: nothing is fetched while an image is built.
"""
