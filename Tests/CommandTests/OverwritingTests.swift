import Foundation
import Sigma
import Testing

/// A file that a command reads is not one that it writes, under whatever name; and an output that cannot be written is found before the work.
@Suite struct OverwritingTests {
    /// Commands that write a file beside their result: the path is the last argument.
    private static func commands(_ text: String, _ model: String) -> [(name: String, arguments: [String])] {
        [
            ("sigma-eval", ["imatrix", text, "--model", model, "--output"]),
            ("sigma-eval", ["sensitivity", text, "--model", model, "--output"]),
            ("sigma-eval", ["routing", text, "--model", model, "--expert-trace"]),
            ("sigma-eval", ["routing", text, "--model", model, "--plot"]),
            ("sigma-run", [text, "--model", model, "--expert-trace"]),
            ("sigma-bench", ["--model", model, "--prompt", "8", "--generate", "0", "--plot"]),
        ]
    }

    @Test func inputsStay() throws {
        let text = try Scratch.file("text.txt", "What is 1 + 2?")
        let model = Scratch.path("model.gguf")
        try FileManager.default.copyItem(atPath: TestModels.demoFloat, toPath: model)
        let link = Scratch.path("link.gguf")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: model)
        let before = try [text, model].map { try Data(contentsOf: URL(filePath: $0)) }
        for (name, arguments) in Self.commands(text, model) {
            for output in [text, model, link] where name != "sigma-bench" || output != text {
                let run = try Subprocess.run(name, arguments + [output])
                #expect(run.code == 64 && run.output.isEmpty, "\(name) \(arguments) \(output): \(run.errors)")
                #expect(run.errors.contains("would overwrite the input"))
            }
        }
        #expect(try [text, model].map { try Data(contentsOf: URL(filePath: $0)) } == before)
    }

    @Test func outputsAreTriedFirst() throws {
        let text = try Scratch.file("text.txt", "What is 1 + 2?")
        for (name, arguments) in Self.commands(text, TestModels.demoFloat) {
            for (output, code) in [(Scratch.path("none") + "/output", 66), (NSTemporaryDirectory(), 64)]
                as [(String, Int32)]
            {
                let run = try Subprocess.run(name, arguments + [output])
                #expect(run.code == code && run.output.isEmpty, "\(name) \(arguments) \(output): \(run.errors)")
            }
        }
    }
}
