"""Registries of models that others run: what they know of a version, read over their REST APIs.

`mlflow.py` asks an MLflow server, `mapping.py` makes lineages of what it says. Only commands ask:
no sidecar needs a registry to serve.
"""
