"""Requests for inference, answered in threads of their own.

MONAI Label's own endpoints run an inference in the server's event loop, so that nothing else is answered meanwhile,
take parameters without looking at them, and answer 500 to whatever is wrong. These stand in their place, under the same
paths, with the same arguments and access rules.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from monailabel.config import settings
from monailabel.endpoints import batch_infer
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.utils.others.generic import get_mime_type
from requests_toolbelt import MultipartEncoder

from lib.batch import check_ids, with_progress
from lib.fuser import Fuser
from lib.parameters import FROM_BATCHES, check_tag, read_parameters

__all__ = ["answer_requests"]

FIELDS = ("params", "file", "label")

ResultType = Literal["image", "json", "all", "page", "dicom_seg"]
"""What is answered: MONAI Label's, and the viewer's page."""

PAGE_HEADERS = {"Content-Security-Policy": "sandbox allow-scripts", "X-Content-Type-Options": "nosniff"}
"""A page comes from the server's address, and shall reach nothing else there."""

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
        if output == "dicom_seg":
            raise HTTPException(422, "a fused image is no segmentation; image, json, page or all is accepted as output")
        also = {"page": True} if output == "page" else {}
        result = app.infer({**_params(params), **also, "model": model, "image": image})
        file = Path(result["file"])
        try:
            return _answer(file, result["params"], result["page"], output)
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
        ids = check_ids(asked.pop("images")) if "images" in asked else None
        read_parameters(known, asked, FROM_BATCHES)
        for id in ids or ():
            app.images.find(id)
        most = asked.get("max_batch_size") or 0
        if not isinstance(most, int) or most < 0:
            raise HTTPException(422, f"max_batch_size: is {most!r}; a whole number is accepted, 0 for all pairs")
        asked = {name: value for name, value in asked.items() if name in known}
        # what stands among the parameters goes before what MONAI Label takes of the URL
        named = {"images": ids} if ids else {}
        asked = {**asked, **named, "max_batch_size": most, "batch": uuid.uuid4().hex}
        return batch_infer.run(model, images, asked, run_sync)

    @router.get("/batch/infer", summary="How far the batch is", dependencies=[user])
    def batch_status(all: bool = False, check_if_running: bool = False) -> Any:
        told = batch_infer.status(all, check_if_running)
        where = app.images.batch_file()
        return [with_progress(task, where) for task in told] if isinstance(told, list) else with_progress(told, where)

    @router.get("/page", summary="The viewer's page of a result that was saved", dependencies=[user])
    def page(image: str, tag: str) -> Response:
        return _page(app.page(image, check_tag(tag)).read_bytes())

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


def _answer(file: Path, params: Mapping[str, Any], page: bytes | None, output: ResultType | None) -> Any:
    """As MONAI Label answers, but that nothing is left to be removed when the client has gone."""
    if output == "json":
        return params
    if output == "page":
        return _page(page)
    content, kind = file.read_bytes(), get_mime_type(file.name)
    if output == "image":
        return Response(content, 200, {"Content-Disposition": f'attachment; filename="{file.name}"'}, kind)
    fields = {
        "params": (None, json.dumps(params), "application/json"),
        "image": (file.name, content, kind),
        **({} if page is None else {"page": ("page.html", page, "text/html")}),
    }
    form = MultipartEncoder(fields=fields)
    return Response(form.to_string(), media_type=form.content_type)


def _page(content: bytes | None) -> Response:
    return Response(content, 200, PAGE_HEADERS, "text/html; charset=utf-8")


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
