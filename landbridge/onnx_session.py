"""How onnxruntime runs a graph here: in one thread, and by nothing but the bytes that it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from landbridge.errors import InputError

CPU = "CPUExecutionProvider"
OUTSIDE = re.compile(rb"[\x08\x00]location")  # the key of a tensor that lies in another file, after its length


def open_session(path: Path, model: bytes, providers: Sequence[Any] = (CPU,)) -> ort.InferenceSession:
    """A single-threaded session of the content `model` of the file `path`.

    Raises:
        InputError: onnxruntime cannot load it, or it names files that hold its weights: these would be no part of a
            verified bundle. onnxruntime before 1.32 reads them whatever it is told.
    """
    if OUTSIDE.search(model):
        raise InputError(path, "names a file that holds its weights", "export it with the weights inside")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        problem = f"onnxruntime cannot load it: {' '.join(str(error).split()):.200}"
        raise InputError(path, problem, "export it again, with operators of an opset that it knows") from error
