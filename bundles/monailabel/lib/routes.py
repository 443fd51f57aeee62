"""Requests for inference, answered in threads of their own.

MONAI Label's own endpoints run an inference in the server's event loop, so that nothing else is answered meanwhile,
take parameters without looking at them, and answer 500 to whatever is wrong. These stand in their place, under the same
paths, with the same arguments and access rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from monailabel.config import settings
from monailabel.endpoints import batch_infer
from monailabel.endpoints.infer import ResultType
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder

from lib.fuser import Fuser
from lib.parameters import FROM_BATCHES, read_parameters

__all__ = ["answer_requests"]

FIELDS = ("params", "file", "label")

OF_ONE_PAIR = ("overlay", "anatomy_text", "overlay_text", "anatomy_modality", "overlay_modality")
"""Parameters that mean nothing in a batch."""


async def check_form(request: Request) -> None:
    """Refuse a body that is no form, or has other fields; a misspelt one would be passed over."""
    kind = request.headers.get("content-type", "")
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if has_body and not kind.startswith(("multipart/form-data", "application/x-www-form-urlencoded")):
        raise HTTPException(415, "a form is accepted, with params as JSON")
    for name in await request.form():
        if name not in FIELDS:
            raise HTTPException(422, f"unknown field {name[:80]!r}; params is accepted")


async def check_json(request: Request) -> None:
    """Refuse a body that is no JSON; FastAPI's own refusal stumbles over bytes that are no text."""
    body = await request.body()
    try:
        json.loads(body or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON; a JSON object of parameters is accepted") from error


def answer_requests(app: Fuser) -> None:
    """Put the app's answers into the place of MONAI Label's."""
    from monailabel.app import app as server

    router = APIRouter(prefix=settings.MONAI_LABEL_API_STR, tags=["Infer"])
    user = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
    admin = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))

    @router.post("/infer/{model}", summary="Fuse two images of the datastore", dependencies=[user, Depends(check_form)])
    def infer(
        model: str,
        image: str = "",
        session_id: str = "",
        params: Annotated[str, Form()] = "{}",
        file: Annotated[UploadFile | None, File()] = None,
        label: Annotated[UploadFile | None, File()] = None,
        output: ResultType | None = None,
    ) -> Any:
        if file or label or session_id:
            raise HTTPException(
                422, "files and sessions bring one image, and fusion takes two; ids of the datastore are accepted"
            )
        if output == ResultType.dicom_seg:
            raise HTTPException(422, "a fused image is no segmentation; image, json or all is accepted as output")
        result = app.infer({**_params(params), "model": model, "image": image})
        file = Path(result["file"])
        try:
            return _answer(file, result["params"], output)
        finally:
            file.unlink()

    @router.post(
        "/batch/infer/{model}", summary="Fuse all pairs of the datastore", dependencies=[admin, Depends(check_json)]
    )
    def batch(
        model: str,
        images: BatchInferImageType = BatchInferImageType.IMAGES_ALL,
        params: dict[str, Any] | None = None,
        run_sync: bool = False,
    ) -> Any:
        known = {name: shown for name, shown in app.task(model).config().items() if name not in OF_ONE_PAIR}
        asked = _only_parameters(params or {})
        read_parameters(known, asked, FROM_BATCHES)
        most = asked.get("max_batch_size") or 0
        if not isinstance(most, int) or most < 0:
            raise HTTPException(422, f"max_batch_size: is {most!r}; a whole number is accepted, 0 for all pairs")
        asked = {name: value for name, value in asked.items() if name in known}
        return batch_infer.run(model, images, {**asked, "max_batch_size": most}, run_sync)

    _replace(server.router.routes, router.routes)


def _replace(routes: list[Any], ours: list[Any]) -> None:
    """Put routes before the others, and take those away that are for the same requests."""
    requests = {(route.path, method) for route in ours for method in route.methods}
    others = [
        route
        for route in routes
        if not any((getattr(route, "path", ""), method) in requests for method in getattr(route, "methods", None) or ())
    ]
    routes[:] = [*ours, *others]


def _answer(file: Path, params: Mapping[str, Any], output: ResultType | None) -> Any:
    """As MONAI Label answers, but that nothing is left to be removed when the client has gone."""
    if output == ResultType.json:
        return params
    content, kind = file.read_bytes(), get_mime_type(file.name)
    if output == ResultType.image:
        return Response(content, 200, {"Content-Disposition": f'attachment; filename="{file.name}"'}, kind)
    fields = {
        "params": (None, json.dumps(params), "application/json"),
        "image": (file.name, content, kind),
    }
    form = MultipartEncoder(fields=fields)
    return Response(form.to_string(), media_type=form.content_type)


def _params(text: str) -> Mapping[str, Any]:
    try:
        return _only_parameters(json.loads(text or "{}"))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"params: not JSON ({error})") from error


def _only_parameters(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise HTTPException(400, f"params: a {type(params).__name__}; a JSON object is accepted")
    for name in ("model", "image"):
        if name in params:
            raise HTTPException(422, f"unknown parameter {name!r}; it is named in the URL")
    return params
