"""A service that survives load: masks over HTTP, with limits and errors in words.

    pip install 'condseg_sdk[app]'  # FastAPI and Uvicorn come with it
    python examples/fastapi_service.py --model condseg-lite-polyp
    curl --data-binary @frame.jpg http://127.0.0.1:8000/mask --output mask.png

It listens on this machine alone. Logins and encryption belong to a proxy in front of it. The network runs in a few
threads; more requests than wait for them are answered with 503 at once, so that memory stays bounded.
"""

from __future__ import annotations

import argparse
import io

import uvicorn
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image, UnidentifiedImageError

from condseg_sdk import CondsegError, Predictor


def check_pixels(data: bytes, most: int) -> None:
    """Refuse what is no image, or has too many pixels, from its header alone."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"the image has more than {most:,} pixels") from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise HTTPException(422, "the body is not an image; send a PNG, JPEG, TIFF, BMP or WebP file") from error
    if pixels > most:
        raise HTTPException(413, f"the image has {pixels:,} pixels, more than {most:,}")


async def read_body(request: Request, most: int) -> bytes:
    """Read the body, and stop as soon as it is too large, whatever its header says."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, f"the body has more than {most:,} bytes")
    return bytes(body)


def make_app(
    predictor: Predictor,
    *,
    threads: int = 2,
    waiting: int = 100,
    max_bytes: int = 20_000_000,
    max_pixels: int = 50_000_000,
) -> FastAPI:
    """Make the service.

    Args:
        predictor: Predictor for all requests.
        threads: Number of predictions at the same time.
        waiting: Number of requests at the same time, those that wait included.
        max_bytes: Largest number of bytes of a body.
        max_pixels: Largest number of pixels of an image.
    """
    app = FastAPI(title="condseg_sdk", docs_url=None, redoc_url=None)  # those pages load scripts from another host
    limiter = CapacityLimiter(threads)
    places = CapacityLimiter(waiting)

    def segment(data: bytes) -> bytes:
        check_pixels(data, max_pixels)
        try:
            return predictor(data).encode("mask")
        except CondsegError as error:
            raise HTTPException(422, str(error)) from error

    async def health() -> dict[str, str]:
        return {"status": "ok", "model": predictor.model_id, "device": predictor.device}

    async def mask(request: Request) -> Response:
        if places.available_tokens < 1:
            raise HTTPException(503, "too many requests at once; try again", headers={"Retry-After": "1"})
        async with places:
            data = await read_body(request, max_bytes)
            png = await to_thread.run_sync(segment, data, limiter=limiter)
        return Response(png, media_type="image/png")

    app.add_api_route("/health", health)
    app.add_api_route("/mask", mask, methods=["POST"])
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="condseg-lite-polyp", help="name, folder or file (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    uvicorn.run(make_app(Predictor.from_pretrained(options.model)), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
