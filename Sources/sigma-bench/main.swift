import SigmaCommand

runCommand(BenchCommand.self)
