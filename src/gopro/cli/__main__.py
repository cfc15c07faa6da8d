from gopro.cli import main

main()
