"""Neural networks: their repository, their descriptions, and how a volume becomes labels.

What knows networks belongs here: model repository and installation, the embedded engine, the way from a patient's grid
to a network's and back, the checks before and after. What reads or writes images belongs to `imaging`; folders of a
payload and the stage contract belong to `operators`.

Arrays on a network's grid are indexed by the axes that its description names (``orientation: RAS`` is ``[x, y, z]``,
the indices growing to the patient's Right, Anterior and Superior). A grid is a `VolumeGeometry` like any other, so that
positions in the patient stay LPS millimetres throughout.
"""
