"""The inference server on this machine: Triton, from its wheel, in an environment of its own.

What belongs here: making that environment, starting and ending the server, what it says of itself. It knows a folder to
work in, a folder of models in Triton's layout, and ports; what a model is belongs to `inference`, which also has the
client. The server listens on this machine alone.

::

    environment = prepare(folder / "environment", lock)
    server = start(folder, environment, models, port=8000)
    rows = model_rows(server)
    stop(folder)
"""
