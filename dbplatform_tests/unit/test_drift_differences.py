"""Two definitions that PostgreSQL writes in two forms, and that mean the same, are no drift."""

from __future__ import annotations

import pytest

from dbplatform.migrations.drift.differences import same

WHOLE = "CHECK (((kind)::text = ANY ((ARRAY[{}])::text[])))"
EACH = "CHECK (((kind)::text = ANY (ARRAY[{}])))"


@pytest.mark.parametrize("values", [["a"], ["a", "it''s", "x]), (''y"]])
def test_a_list_of_varchars_cast_as_a_whole_is_one_cast_value_by_value(values: list[str]) -> None:
    whole = WHOLE.format(", ".join(f"'{value}'::character varying" for value in values))
    each = EACH.format(", ".join(f"('{value}'::character varying)::text" for value in values))
    assert same(whole, each)
    assert same(each, whole)


def test_other_values_are_other_definitions() -> None:
    whole = WHOLE.format("'a'::character varying, 'b'::character varying")
    assert not same(whole, EACH.format("('a'::character varying)::text"))
    assert not same(whole, WHOLE.format("'b'::character varying, 'a'::character varying"))
    assert not same(whole, None)
    assert same(None, None)
