"""The vetting battery: what a program must survive before any score of it counts.

`python -m engine.linear_attention.vetting WORKDIR` runs it inside the sandbox. Each gate is a function from a `Subject`
to an `Outcome`; the gates live with the property they check (`form`, `causality`, `isolation`, `learning`, `cost`,
`identity`), `battery` lists them in order, and `process` runs them in forked children so that whatever a program does
to its process ends as a failed gate.
"""
