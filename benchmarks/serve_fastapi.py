"""The rival of `serve.py`: an export behind FastAPI and pydantic, as people write it. python serve_fastapi.py DIR PORT

Needs `pip install fastapi`. `/predict` is an `async def`, which FastAPI calls at once; `/predict_def` a `def`, which it
calls in a thread.
"""



import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import create_model

from clickwise.serve.exported import ExportedModel

model = ExportedModel(Path(sys.argv[1]))
Value = int | float | str | bool | None
Row = create_model("Row", **{name: (Value, ...) for name in model.encoder.needs})
Rows = create_model("Rows", rows=(list[Row], ...))
app = FastAPI()


def scored(request: Rows) -> dict:
    return {"probability": model.score([row.model_dump() for row in request.rows]).tolist()}


@app.post("/predict")
async def predict(request: Rows) -> dict:
    return scored(request)


@app.post("/predict_def")
def predict_def(request: Rows) -> dict:
    return scored(request)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
