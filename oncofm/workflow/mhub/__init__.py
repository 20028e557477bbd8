"""MHub workflows: YAML files that wire modules; what the modules share; how they are run."""
