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
    unit: UnitOfWork, resource: Resource, paging: PageRequest, filters: Sequence[Filter]
) -> Page[Any]:
    """Return one page of the rows with these values. An index must support each column, and the most selective come first."""
    given = [(column, value) for column, value in filters if value is not None]
    conditions = [column == value for column, value in given]
    return await store.page(
        unit,
        resource,
        paging.cursor,
        paging.limit,
        *conditions[:1],
        checked=conditions[1:],
        filters=" ".join(f"{column.key}={value}" for column, value in given),
    )
