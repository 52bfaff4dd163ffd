// swift-tools-version: 6.2
import PackageDescription

// A program as others write it: `run.sh` puts README's example in its place, and this package's copy, with a version, at SIGMA_URL.
let package = Package(
    name: "consumer",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(url: Context.environment["SIGMA_URL"] ?? "https://example.org/sigma.git", from: "0.1.0")
    ],
    targets: [.executableTarget(name: "Ask", dependencies: [.product(name: "Sigma", package: "sigma")])],
    swiftLanguageModes: [.v6]
)
