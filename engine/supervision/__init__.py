"""What keeps a person in charge: sandbox, drill, risk, policy, ledger."""
