import SigmaCommand

runCommand(EvalCommand.self)
