"""Asks a registered model one question, in a process of its own: `python -P ask_registered.py URI VIDEO QUESTION`.

So the model runs on the code that it was registered with, as a served one does, and not on this checkout, which `tpo`
in this process would be. `tpo.registry.ask` starts it. The last line on stdout is one JSON object: an answer, or an
error with MLflow's code for it; and whether the model was loaded by then.
"""

import json
import sys
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException


def main() -> None:
    uri, video, question = sys.argv[1:]
    said: dict[str, object] = {"loaded": False}
    try:
        model = mlflow.pyfunc.load_model(uri)
        code = Path(sys.path[0]).resolve()  # where MLflow has put the package's own
        said["loaded"] = True
        answer = model.predict([{"video": video, "question": question}])[0]
        said |= {"error": lacks} if (lacks := _lacks(code)) else {"answer": answer}
    except MlflowException as error:
        said |= {"error": error.message, "code": error.error_code}
    except Exception as error:  # noqa: BLE001 - of whatever kind, in the package's code
        said |= {"error": str(error) or type(error).__name__}
    print(json.dumps(said))


def _lacks(code: Path) -> str:
    """What was imported of a `tpo` that is not the package's, but another one here, which a server may not have."""
    imported = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "tpo"}
    foreign = [
        name for name, module in imported.items() if not Path(module.__file__ or "/").resolve().is_relative_to(code)
    ]
    return f"the package lacks {', '.join(sorted(foreign))}" if foreign else ""


if __name__ == "__main__":
    main()
