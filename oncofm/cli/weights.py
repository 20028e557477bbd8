"""weights"""

import typer

app = typer.Typer(help="weights")


@app.command()
def list() -> None:
    pass
