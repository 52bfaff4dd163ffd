import SigmaCommand

runCommand(SigmaBench.self)
