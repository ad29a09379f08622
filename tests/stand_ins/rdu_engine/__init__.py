"""A stand-in of the `rdu_engine` module for tests: it checks contracts and claims no device.

Nothing here comes from SambaNova. It runs PEFs that the stand-in of `sambaflow` has written, by
torch on the CPU. Docstrings name their source in brackets: [WHL] signatures, docstrings and
messages that can be read in the public wheel `sambanova-rdu-engine-api`, [MZ] how the modelzoo
repository calls it, [inf] a conclusion.

    PEF(path)                          opens a PEF [WHL; MZ]
    pef.get_schedules()                names of its graphs [WHL]
    pef.load_checkpoint(folder)        weights to the device [WHL; MZ]
    pef.run(checkpoint, inputs, schedule, reuse_outputs)   one run [WHL; MZ]
    output.get_tensor(name), output[i], iter(output)       results [WHL; MZ]
    get_checkpoint_spec(path)          names, shapes and dtypes of the weights [WHL]

The rest of the module is not here.
"""

from __future__ import annotations

from sambaflow.stand_in.faults import (
    D2dUeException,
    DramUeException,
    HwException,
    NumericalException,
    ScratchpadUeException,
    TileFaultException,
)

from rdu_engine.stand_in.checkpoint import Checkpoint
from rdu_engine.stand_in.output import ModelOutput
from rdu_engine.stand_in.pef import PEF, get_checkpoint_spec

__all__ = [
    "PEF",
    "Checkpoint",
    "D2dUeException",
    "DramUeException",
    "HwException",
    "ModelOutput",
    "NumericalException",
    "ScratchpadUeException",
    "TileFaultException",
    "get_checkpoint_spec",
]
