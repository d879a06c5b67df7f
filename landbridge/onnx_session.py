"""How onnxruntime runs a graph here: in one thread, and by nothing but the bytes that it is given."""

from __future__ import annotations

import onnxruntime as ort

NOWHERE = "/nonexistent"


def session_options() -> ort.SessionOptions:
    """Options of a session.

    A graph may name files that hold its weights, by default below the working directory: these would be no part of a
    verified bundle, and are not read.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    return options
