"""The process of the fake device: reads requests, a line of JSON each, and answers each with another.

It is started with the stubs of CUDA in front of torch, see conftest.py: `worker.py RUN`, the folder of a trained run. A
request is `{"train": [OPTION, ...], "plant": NAME or null}`, `{"compare": [OPTION, ...], "logged": BOOL}`, or
`{"use": FUNCTION of inference.py, "device": NAME}`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the product prints is no answer
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    import inference
    from training import compare_steps, train

    for line in sys.stdin:
        request = json.loads(line)
        try:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                if "compare" in request:
                    found = compare_steps(folder, request["compare"], logged=request["logged"])
                elif "train" in request:
                    found = train(folder, request["train"], request["plant"])
                else:
                    found = getattr(inference, request["use"])(folder, Path(sys.argv[1]), request["device"]) or {}
        except BaseException as error:
            places = [f"{Path(at.filename).name}:{at.name}" for at in traceback.extract_tb(error.__traceback__)]
            first = (str(error).strip().splitlines() or [""])[0]
            found = {"error": f"{type(error).__name__}: {first}", "at": places}
            traceback.print_exc()
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
