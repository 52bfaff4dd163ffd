#if os(Linux)
    import Foundation
    import Testing

    /// A disk that stops answering while experts are read from it.
    @Suite struct FailingDeviceTests {
        @Test(.enabled(if: FailingDevice.isPossible, "needs root, a loop device and mkfs.ext4"))
        func requestFailsWithFileAndOffset() throws {
            let device = try FailingDevice(holding: TestModels.endless)
            defer { device.remove() }
            let process = try Subprocess(
                "sigma-run",
                [
                    "--model", device.file, "--expert-cache", "1MiB", "--prompt", "What is 3 + 5?", "--max-tokens",
                    "4000", "--thinking-budget", "4000", "--temperature", "2", "--seed", "1", "--json", "--threads",
                    "1", "--context", "4000",
                ])
            // The prompt's line: the model is loaded. What comes now reads experts for every token.
            #expect(!process.read().isEmpty)
            try device.fail()
            let output = String(decoding: process.readToEnd(), as: UTF8.self)
            let (code, errors) = process.wait()
            #expect(code == 74)
            #expect(!output.contains("\"done\""))
            #expect(errors.contains("\(device.file): at byte ") && errors.contains("cannot read"), "\(errors)")
        }
    }

    /// A file on a file system on a loop device, whose own file can be cut off behind the file system's tables.
    private struct FailingDevice {
        let file: String
        private let image = Scratch.path("image")
        private let mount = Scratch.path("mount")

        private static func run(_ arguments: [String]) -> Int32 {
            guard let result = try? Subprocess.run("/usr/bin/env", arguments) else { return -1 }
            return result.code
        }

        /// Whether this process may make one: found out by making one.
        static let isPossible: Bool = {
            guard geteuid() == 0, let device = try? FailingDevice(holding: "/dev/null") else { return false }
            device.remove()
            return true
        }()

        init(holding source: String) throws {
            file = mount + "/model.gguf"
            try FileManager.default.createDirectory(atPath: mount, withIntermediateDirectories: true)
            struct Failed: Error {}
            do {
                for command in [
                    ["truncate", "-s", "64M", image], ["mkfs.ext4", "-q", "-F", image],
                    ["mount", "-o", "loop", image, mount],
                    ["cp", source, file], ["sync", "-f", file],
                ] {
                    guard Self.run(command) == 0 else { throw Failed() }
                }
            } catch {
                remove()
                throw error
            }
        }

        /// From now on the device answers with errors.
        func fail() throws { try #require(truncate(image, 4 << 20) == 0) }

        func remove() {
            _ = Self.run(["umount", "-l", mount])
            try? FileManager.default.removeItem(atPath: mount)
            try? FileManager.default.removeItem(atPath: image)
        }
    }
#endif
