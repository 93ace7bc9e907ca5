"""Liquid with a budget: python-liquid, where each loop, variable, filter and written text pays (`template_budget`)."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import StringIO
from typing import Any, ClassVar, Final, TextIO, cast

from liquid import BoundTemplate, Environment, FalsyStrictUndefined, RenderContext
from liquid.ast import BlockNode, Node
from liquid.builtin.expressions import LoopExpression, Path
from liquid.builtin.expressions.logical import ContainsExpression
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.for_tag import ForNode, ForTag
from liquid.builtin.tags.tablerow_tag import TablerowNode, TablerowTag
from liquid.expression import Expression
from liquid.output import LimitedStringIO
from liquid.token import Token
from liquid.undefined import UNDEFINED

from spine.notifications.template_budget import MAX_CHARS, Budget
from spine.notifications.template_filters import apply_filter

_FILE_TAGS: Final = ("include", "render")


class _Buffer(LimitedStringIO):
    """An output whose bytes are limited and paid for."""

    def __init__(self, limit: int, budget: Budget) -> None:
        super().__init__(limit)
        self._budget = budget

    def write(self, text: str) -> int:
        self._budget.take(text)
        return super().write(text)


class _Context(RenderContext):
    """The state of one rendering, with its budget."""

    __slots__ = ("budget",)

    def __init__(self, template: BoundTemplate, variables: Mapping[str, object], budget: Budget) -> None:
        super().__init__(template, globals=template.make_globals(variables))
        self.budget = budget

    def get(self, path: list[object], *, token: Token | None, default: object = UNDEFINED) -> object:
        """Return the value of a variable, and pay for it."""
        value = super().get(path, token=token, default=default)
        self.budget.take(value)
        return value

    def filter(self, name: str, token: Token | None) -> Callable[..., object]:
        """Return the filter, within the budget."""
        return partial(apply_filter, self.budget, name, super().filter(name, token))

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        """Return an output for a part of the text, or for the whole."""
        return _Buffer(MAX_CHARS - (buf.size if isinstance(buf, LimitedStringIO) else 0), self.budget)


class _Loop(LoopExpression):
    """The head of a loop: each item that it yields pays for one run of the loop's block."""

    __slots__ = ("_weight",)

    def __init__(self, head: LoopExpression, block: BlockNode) -> None:
        super().__init__(
            head.token,
            head.identifier,
            head.iterable,
            limit=head.limit,
            offset=head.offset,
            reversed_=head.reversed,
            cols=head.cols,
        )
        self._weight = 1 + _weight(block)

    def _to_iter(self, obj: object, context: RenderContext) -> tuple[Iterator[Any], int]:
        items, length = super()._to_iter(obj, context)
        return self._paid(items, cast(_Context, context).budget), length

    def _paid(self, items: Iterator[Any], budget: Budget) -> Iterator[Any]:
        for item in items:
            budget.spend(self._weight)
            yield item


def _weight(node: Node) -> int:
    """Return how many nodes and expressions one run of a node evaluates at most. Loops inside pay for themselves."""
    inner = node.children(cast(RenderContext, None), include_partials=False)
    return (
        1
        + sum(_expression_weight(one) for one in node.expressions())
        + (0 if isinstance(node, ForNode | TablerowNode) else sum(_weight(child) for child in inner))
    )


def _expression_weight(expression: Expression) -> int:
    own = len(expression.path) if isinstance(expression, Path) else 1
    return own + sum(_expression_weight(child) for child in expression.children())


class _Contains(ContainsExpression):
    """A search. In a range each element pays: Python goes through all of them for anything but a number."""

    __slots__ = ()

    def evaluate(self, context: RenderContext) -> object:
        """Return whether the right side is in the left one."""
        if isinstance(self.left, RangeLiteral):
            cast(_Context, context).budget.take(self.left.evaluate(context))
        return super().evaluate(context)


def _let_searches_pay(node: Node) -> None:
    """Replace the searches of a node and of its inner ones. Liquid has no other place to name their class."""
    rest = list(node.expressions())
    while rest:
        expression = rest.pop()
        if type(expression) is ContainsExpression:
            expression.__class__ = _Contains
        rest.extend(expression.children())
    for child in node.children(cast(RenderContext, None), include_partials=False):
        _let_searches_pay(child)


class _For(ForNode):
    __slots__ = ()

    def __init__(
        self, token: Token, expression: LoopExpression, block: BlockNode, default: BlockNode | None = None
    ) -> None:
        super().__init__(token, _Loop(expression, block), block, default)


class _Tablerow(TablerowNode):
    __slots__ = ()

    def __init__(self, token: Token, expression: LoopExpression, block: BlockNode) -> None:
        super().__init__(token, _Loop(expression, block), block)


class _ForTag(ForTag):
    node_class = _For


class _TablerowTag(TablerowTag):
    node_class = _Tablerow


class _Environment(Environment):
    context_depth_limit: ClassVar[int] = 20

    def from_string(self, *args: Any, **options: Any) -> BoundTemplate:
        """Parse a template."""
        template = super().from_string(*args, **options)
        for node in template.nodes:
            _let_searches_pay(node)
        return template

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=extra)
        for name in _FILE_TAGS:
            self.tags.pop(name)
        self.add_tag(_ForTag)
        self.add_tag(_TablerowTag)


PLAIN: Final = _Environment(undefined=FalsyStrictUndefined, autoescape=False)
HTML: Final = _Environment(undefined=FalsyStrictUndefined, autoescape=True)


def evaluate(template: BoundTemplate, variables: Mapping[str, Any], budget: Budget) -> str:
    """Render a template to text within a budget. Raises what python-liquid raises, and TooExpensive."""
    context = _Context(template, variables, budget)
    output = context.get_buffer()
    template.render_with_context(context, output)
    return output.getvalue()
