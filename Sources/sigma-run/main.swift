import SigmaCommand

await runAsyncCommand(RunCommand.self)
