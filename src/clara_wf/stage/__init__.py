"""What the author of a stage imports.

::

    from clara_wf.stage import StageContext, main

    def execute(context: StageContext, prepared: None) -> None:
        for file in context.inputs.iterdir():
            ...

    if __name__ == "__main__":
        main(execute=execute)

Here stand the stage contract (folders, `NVIDIA_CLARA_*` variables, lock files, log, exit code) and the lifecycle
`prepare -> execute -> cleanup`. What a stage does with an image does not belong here; nor does anything that needs more
than the standard library, so that a stage in another image can use it at no cost.
"""

from clara_wf.stage.contract import Contract, StageContext
from clara_wf.stage.lifecycle import main, run

__all__ = ["Contract", "StageContext", "main", "run"]
