"""Filters of lists: the most selective one is looked up in an index, the others are checked row by row."""

from collections.abc import Sequence
from typing import Any

from spine.kernel import store
from spine.kernel.resource import Resource
from spine.kernel.routes import PageRequest
from spine.kernel.store import Page
from spine.kernel.unit_of_work import UnitOfWork

Filter = tuple[Any, Any]
"""A column, and the value that it must have; None for any value."""


async def filtered_page(
    unit: UnitOfWork, resource: Resource, paging: PageRequest, *indexed: Filter, checked: Sequence[Filter] = ()
) -> Page[Any]:
    """Return one page of the rows with these values. An index supports each column of `indexed`; the most selective are first."""
    found = [(column, value) for column, value in indexed if value is not None]
    others = found[1:] + [(column, value) for column, value in checked if value is not None]
    return await store.page(
        unit,
        resource,
        paging.cursor,
        paging.limit,
        *(column == value for column, value in found[:1]),
        checked=[column == value for column, value in others],
        filters=" ".join(f"{column.key}={value}" for column, value in found[:1] + others),
    )
