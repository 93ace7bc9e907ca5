"""`spine doctor`: one room per part of an installation; each looks, and judges what it saw."""
