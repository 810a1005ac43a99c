"""What an auditor reads: every record in plain words (`store.telling`), and a check of the whole run."""

from __future__ import annotations

from store.telling import MAX_TEXT, clean, describe
from store.verifying import BLOB_FIELDS, AuditReport, Problem, verify_run

__all__ = ["AuditReport", "BLOB_FIELDS", "MAX_TEXT", "Problem", "clean", "describe", "verify_run"]
