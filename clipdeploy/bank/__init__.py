"""Labels embedded once and kept in a bundle, so that whoever runs it there needs no text encoder for them."""

from clipdeploy.bank.job import (
    BankOutcome,
    BankRemoved,
    BankRequest,
    all_templates,
    bank_labels,
    list_banks,
    remove_labels,
)

__all__ = [
    "BankOutcome",
    "BankRemoved",
    "BankRequest",
    "all_templates",
    "bank_labels",
    "list_banks",
    "remove_labels",
]
