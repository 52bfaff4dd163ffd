// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "sigma",
    platforms: [.macOS(.v15)],
    products: [
        .library(name: "Sigma", targets: ["Sigma"]),
        .executable(name: "sigma-run", targets: ["sigma-run"]),
        .executable(name: "sigma-convert", targets: ["sigma-convert"]),
        .executable(name: "sigma-eval", targets: ["sigma-eval"]),
        .executable(name: "sigma-bench", targets: ["sigma-bench"]),
        .executable(name: "sigma-serve", targets: ["sigma-serve"]),
    ],
    // What only the commands and the server need. A package that depends on this one leaves them off, and then fetches nothing; `make` switches
    // them on.
    traits: [
        .trait(name: "Commands", description: "The commands: parsing of arguments."),
        .trait(name: "Server", description: "sigma-serve: HTTP.", enabledTraits: ["Commands"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/apple/swift-async-algorithms", from: "1.1.4"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // SIMD kernels with run-time dispatch, the thread team's fork/join, and the fault guard of mapped files.
        .target(name: "CSigma"),
        // The CUDA kernels' sources, which a run-time compiler makes programs of, and the contract of how they are launched.
        .target(name: "CCUDA", exclude: ["kernels"]),
        .systemLibrary(
            name: "COpenBLAS",
            providers: [.apt(["libopenblas-dev"]), .brew(["openblas"])]),

        // The system's C library under one name.
        .target(name: "SystemLibrary"),
        // What knows nothing of models: errors, files, threads, memory, JSON and GGUF.
        .target(name: "SigmaBase", dependencies: ["CSigma", "SystemLibrary"]),
        // Constraints on answers: JSON Schema, expressions, choices -> masks over a vocabulary. Knows nothing of models.
        .target(name: "SigmaGrammar", dependencies: ["SigmaBase"]),
        // The engine: tokenizer, model, back ends, generation, and the public library.
        .target(
            name: "Sigma",
            dependencies: [
                "SigmaBase", "SigmaGrammar", "SystemLibrary", "CSigma", "CCUDA",
                .target(name: "COpenBLAS", condition: .when(platforms: [.linux])),
            ],
            linkerSettings: [.linkedFramework("Accelerate", .when(platforms: [.macOS]))]),
        // What no answer needs: traces, simulations, importance, surveys, scoring.
        .target(name: "SigmaStudies", dependencies: ["Sigma", "SystemLibrary"]),
        // OpenAI's and Anthropic's bodies and answers, without HTTP: for batches and servers.
        .target(name: "SigmaRequests", dependencies: ["Sigma"]),
        // The search for scales when weights are quantized: SIMD with run-time dispatch, and no part of what runs a model.
        .target(name: "CQuantization", dependencies: ["CSigma"]),
        // Checkpoint (or GGUF) -> native model file.
        .target(
            name: "SigmaConversion",
            dependencies: ["Sigma", "SigmaStudies", "SystemLibrary", "CSigma", "CQuantization"]),

        // The server's page and its description, in the binary.
        .target(name: "CServerFiles", exclude: ["files"]),
        // OpenAI's and Anthropic's protocols over HTTP.
        .target(
            name: "SigmaServer",
            dependencies: [
                "Sigma", "SigmaRequests", "SystemLibrary", "CServerFiles",
                .product(name: "Hummingbird", package: "hummingbird", condition: .when(traits: ["Server"])),
                .product(name: "HummingbirdCore", package: "hummingbird", condition: .when(traits: ["Server"])),
                .product(
                    name: "AsyncAlgorithms", package: "swift-async-algorithms", condition: .when(traits: ["Server"])),
                .product(name: "HTTPTypes", package: "swift-http-types", condition: .when(traits: ["Server"])),
                .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Server"])),
                .product(name: "CoreMetrics", package: "swift-metrics", condition: .when(traits: ["Server"])),
                .product(name: "NIOCore", package: "swift-nio", condition: .when(traits: ["Server"])),
                .product(name: "NIOPosix", package: "swift-nio", condition: .when(traits: ["Server"])),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras", condition: .when(traits: ["Server"])),
                .product(
                    name: "ServiceLifecycle", package: "swift-service-lifecycle", condition: .when(traits: ["Server"])),
            ]),

        // What the commands share: exit codes, sizes, progress bars, where the default model is.
        .target(
            name: "SigmaCommand",
            dependencies: [
                "Sigma", "SigmaTerminal", "SystemLibrary", "CSigma",
                .product(
                    name: "ArgumentParser", package: "swift-argument-parser", condition: .when(traits: ["Commands"])),
            ]),
        // A person at a terminal: keys, line editing, history.
        .target(name: "SigmaTerminal", dependencies: ["SigmaBase", "SystemLibrary"]),
        .executableTarget(
            name: "sigma-run",
            dependencies: ["SigmaCommand", "SigmaStudies", "SigmaTerminal", "SigmaRequests", "SystemLibrary"]),
        .executableTarget(name: "sigma-convert", dependencies: ["SigmaCommand", "SigmaConversion"]),
        .executableTarget(
            name: "sigma-eval", dependencies: ["SigmaCommand", "SigmaConversion", "SigmaStudies"]),
        .executableTarget(name: "sigma-bench", dependencies: ["SigmaCommand", "SigmaStudies", "CMachine"]),
        .executableTarget(
            name: "sigma-serve",
            dependencies: [
                "SigmaCommand", "SigmaServer", "SigmaRequests", "SystemLibrary",
                .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Server"])),
            ]),
        // Loops that only read, or only multiply: the machine's ceilings.
        .target(name: "CMachine"),

        .target(name: "CBenchmarkSupport", path: "Benchmarks/CBenchmarkSupport"),
        .executableTarget(
            name: "quantizer-benchmark", dependencies: ["CQuantization", "CSigma"],
            path: "Benchmarks/QuantizerBenchmark",
            linkerSettings: [.linkedLibrary("m", .when(platforms: [.linux]))]),
        .executableTarget(
            name: "constraint-benchmark", dependencies: ["SigmaGrammar", "SigmaBase", "SystemLibrary"],
            path: "Benchmarks/ConstraintBenchmark"),
        .executableTarget(
            name: "step-benchmark", dependencies: ["Sigma", "CBenchmarkSupport"], path: "Benchmarks/StepBenchmark"),
        .executableTarget(
            name: "draft-benchmark", dependencies: ["SampleFiles", "Sigma", "SystemLibrary"],
            path: "Benchmarks/DraftBenchmark"),
        .executableTarget(
            name: "replay-benchmark", dependencies: ["SampleFiles", "Sigma", "SigmaGrammar", "SystemLibrary"],
            path: "Benchmarks/ReplayBenchmark"),

        .testTarget(
            name: "SigmaTests",
            dependencies: ["Sigma", "SigmaStudies", "SigmaConversion", "SampleFiles", "SystemLibrary", "CSigma"]),
        .testTarget(
            name: "SigmaRequestsTests", dependencies: ["SigmaRequests", "Sigma", "SigmaConversion", "SampleFiles"]),
        .testTarget(
            name: "SigmaServerTests",
            dependencies: [
                "SigmaServer", "SigmaRequests", "Sigma", "SigmaConversion", "SampleFiles", "SystemLibrary",
                .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Server"])),
            ]),
        .testTarget(name: "SigmaGrammarTests", dependencies: ["SigmaGrammar", "SigmaBase", "SystemLibrary"]),
        // What several test targets share: small model files made on the spot, and damaged ones; back ends that fail; connections. And the long
        // run of damaged files.
        .target(
            name: "SampleFiles", dependencies: ["Sigma", "SigmaConversion", "SystemLibrary"], path: "Tests/SampleFiles"),
        .executableTarget(
            name: "fuzz-headers", dependencies: ["SampleFiles", "Sigma", "CBenchmarkSupport"],
            path: "Tests/FuzzHeaders"),
        // A CUDA driver and compiler on the host's memory, for tests.
        .target(name: "EmulatedDevice", path: "Tests/EmulatedDevice"),
        .testTarget(
            name: "SigmaConversionTests",
            dependencies: ["SigmaConversion", "SigmaStudies", "SampleFiles", "SystemLibrary", "CSigma"]),
        // The CUDA kernels and back end on an emulated device, and NVIDIA's compiler where it is installed.
        .testTarget(
            name: "CUDATests",
            dependencies: [
                "CCUDA", "Sigma", "SigmaStudies", "CSigma", "SigmaConversion", "SampleFiles", "SystemLibrary",
                "EmulatedDevice",
            ]),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "SigmaCommand", "SigmaConversion", "SigmaStudies", "SigmaTerminal", "SampleFiles", "SystemLibrary",
                "EmulatedDevice", "sigma-run", "sigma-convert", "sigma-eval", "sigma-bench", "sigma-serve",
            ]),
    ],
    swiftLanguageModes: [.v6],
    cLanguageStandard: .gnu11
)
