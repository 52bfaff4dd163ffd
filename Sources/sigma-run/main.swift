import SigmaCommand

runCommand(RunCommand.self)
