"""Asks a registered model one question, in a process of its own: `python -P ask_registered.py URI VIDEO QUESTION`.

So the model runs on the code that it was registered with, as a served one does, and not on this checkout, which `tpo`
in this process would be. `tpo ask` starts it. The last line on stdout is one JSON object: an answer, or an error with
MLflow's code for it and whether the model was loaded by then.
"""

import json
import sys

import mlflow
from mlflow.exceptions import MlflowException


def main() -> None:
    uri, video, question = sys.argv[1:]
    loaded = False
    try:
        model = mlflow.pyfunc.load_model(uri)
        loaded = True
        said = {"answer": model.predict([{"video": video, "question": question}])[0]}
    except MlflowException as error:
        said = {"error": error.message, "code": error.error_code, "loaded": loaded}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
