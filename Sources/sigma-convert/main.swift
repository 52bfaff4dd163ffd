import SigmaCommand

runCommand(Convert.self)
