"""Results of tool calls: the operation's answer as structured content and as text, and refusals as problems."""

import orjson
from mcp.types import CallToolResult, TextContent

from products.mcp.in_process import Answer
from products.mcp.tools import Tool
from spine.kernel.errors import SpineError


class ResultTooLarge(SpineError):
    """The result is too large for a tool."""

    status, title, code = 413, "Too large", "result_too_large"


def to_result(tool: Tool, answer: Answer, max_bytes: int) -> CallToolResult:
    """Return the result of a call from the answer of its operation."""
    request_id = answer.headers["request-id"]
    if answer.size > max_bytes:
        return refusal(_too_large(tool, answer, max_bytes), request_id, status=answer.status)
    text = bytes(answer.body)
    content = orjson.loads(text)
    if answer.status >= 400:
        content, text = _with_argument_name(tool, content, text)
    meta: dict[str, object] = {"request_id": request_id, "status": answer.status}
    if "idempotent-replayed" in answer.headers:
        meta["replayed"] = True
    if "retry-after" in answer.headers:
        meta["retry_after_s"] = int(answer.headers["retry-after"])
    return _result(content, text, meta, is_error=answer.status >= 400)


def refusal(error: SpineError, request_id: str, *, status: int | None = None) -> CallToolResult:
    """Return the result of a call that was refused before its operation, or whose answer cannot be given."""
    text = error.body(request_id)
    meta: dict[str, object] = {"request_id": request_id, "status": status or error.status}
    if "Retry-After" in error.headers:
        meta["retry_after_s"] = int(error.headers["Retry-After"])
    return _result(orjson.loads(text), text, meta, is_error=True)


def _result(content: object, text: bytes, meta: dict[str, object], *, is_error: bool) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(text=text.decode())],
        structured_content=content,
        is_error=is_error,
        _meta=meta,
    )


def _with_argument_name(tool: Tool, problem: dict[str, object], text: bytes) -> tuple[dict[str, object], bytes]:
    """Return the problem and its text. A header at fault is named as the argument that it came from."""
    for name, argument in tool.arguments.items():
        if argument.place == "header" and argument.name == problem.get("param"):
            renamed = problem | {"param": name}
            return renamed, orjson.dumps(renamed)
    return problem, text


def _too_large(tool: Tool, answer: Answer, max_bytes: int) -> ResultTooLarge:
    size = f"the result has {answer.size} bytes; a tool's may have {max_bytes}"
    if "limit" in tool.arguments:
        return ResultTooLarge(f"{size}; give a smaller limit", param="limit")
    if tool.read_only:
        return ResultTooLarge(f"{size}; read it over REST: {tool.method} {tool.path}")
    return ResultTooLarge(f"the call answered {answer.status}, but {size}; read it over REST")
