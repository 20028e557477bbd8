"""The command ``oncofm`` with an encoder that has no network, in one process."""

from batches import ReadersHere, SmallEncoder

from oncofm.cli import main
from oncofm.workflow.batch import computers

computers.start_loading = lambda *_: SmallEncoder
computers.Readers = ReadersHere

if __name__ == "__main__":
    main()
