"""The chart: reading, rendering and editing it, and the rendered Job as a Plan.

The only room that talks to Helm and knows what lies in `charts/`. It decides nothing about a workflow: what the
templates render to is what runs. Carrying out a plan belongs to `runners`.
"""
