"""CT reconstruction: from projections to a volume in Hounsfield units.

Here belong the geometry of a scan, the formats that projections come in, their faults, and the methods. Projectors and
backprojectors are the Reconstruction Toolkit's (RTK); what knows a stage's folders belongs to `operators`, what makes
test data to `phantom`.

The scanner frame is fixed to the gantry, right-handed, in millimetres from the isocentre: z is the axis of rotation and
runs into the bore, y points down, x to the right of who looks into the bore from the table. It is the patient frame
(LPS) of a patient who lies head first and supine; `geometry.patient_axes` turns it for the others. Projections are
indexed ``[view, row, column]``.
"""
