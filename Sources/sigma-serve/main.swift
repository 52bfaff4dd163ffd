import SigmaCommand

runCommand(ServeCommand.self)
