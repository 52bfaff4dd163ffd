import Sigma
import SigmaCommand
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Files that zlib has packed, in each kind of block, and damaged ones.
@Suite struct GzipTests {
    private static let short = "Hello, hello, hello, hello!\n"
    private static let long = (0..<400).map { "\($0): \($0 * $0 % 97) squares leave \($0 * $0 % 89)\n" }.joined()

    /// Packed by Python's zlib: the kind of block, base64, and the text.
    private static let files: [(kind: String, packed: String, text: String)] = [
        ("stored", "H4sIAAAAAAAAAAEcAOP/SGVsbG8sIGhlbGxvLCBoZWxsbywgaGVsbG8hCmNhP5McAAAA", short),
        ("fixed code", "H4sIAAAAAAAAAPNIzcnJ11HIwKQUuTzIlAMAYHZlUVQAAAA=", short + short + short),
        (
            "no distances",
            "H4sIAAAAAAAAAAXBsRXEIAxEwZwqfgkWxvisbhRsRgJ6UP/NXM5Fzh1LyVAccRVzjJw7lpKhOMJKdRo5dywlQ3FEK7fzkXPHUjIUR3ylOdbJ"
                + "uWMpGYojrJfHqQ85dywlQ3FEfUp37k7OHUvJUBxx9/I67SPnjqVkKI5oX/k5vZFzx1IyFEf0Vj7nZ+TcsZQMxRE/K3Y5Nzl3LCVDcYRZMXNq"
                + "I+eOpWQojrhrseq0l5w7lpKhOOJ5it3OW/kDELqCtSwBAAA=",
            String(long.prefix(300))
        ),
        ("all header fields", "H4sIHgAAAAAAAAMAYWJjbmFtZQBjb21tZW50ABI080jNycnXUcjApBS5AGNhP5McAAAA", short),
        ("empty", "H4sIAAAAAAAAAAMAAAAAAAAAAAA=", ""),
        (
            "own code",
            "H4sIAAAAAAAAAG2aPbroKA5Ec1Zxl2AQv3c3Hbxskpn+ptffVYTopNjGCETVsfD3+/P9/P3f///1vz9///znz1///Pn5Sv39qU9jLe33pz+Nvc"
                + "Tvz3kaT+l6fL7PzzJ+f9p4mtso8/cn3rtjlqXXvV33U/bvz3yHMXs5vz/7HfKupX7q/B2JmhVge3uJVqpjXE/7GKUqzNXe7jVPivRtrrtURRrv"
                + "aPoqVaHO9/6l+xXrSTOj4SjYeIc/1I+iXe+qjdIUbH277700RTvebrbuV7QnzfwpTdH2d3a2+lG0J4XVSlO4/e1fzYr2vN2MKE3Rjnf0dZWmaP"
                + "c7OepGwc53cvpXQtG2d62q2hXtTv3UEop2pAQeJRRte2et6X5Fu98E3LuEop3vLEy1O4/fcQ6NR+HW9/7QznG47+w33e943/ZdusLtb1h7la5w"
                + "I+WU9qDCrWkaonSF+/Y+dbvX9l3Dqe4V7R7QrmjXgX4U7RrwWkW7AoZ5oF1hjQ/62WVUeK0mbTQYpiZ5BISlRRkdZkHdD5g0rfmYMMnKkbFgUZ"
                + "RTY8MaKgfHgTVXzs4PckQ5PivklPbEbJCD2kIzIGe15WanHC9z0JZQ+4QtJAGYC7acBGNu2KISmHnyjpYerQ8EYJRVSS9WWY3kpZUVIEdS09VB"
                + "vqS+a4DcSa3XJHn8ylogpzKDtUF9ZR7rgFrLbPYH6i5v2hXcQFa2G7mHnC+y2cgndwdvkq3uAV4mF94TvE+9r+yUGssGX9XQD7jwV84Hnl3Lqe"
                + "DwsuwGPHDKCaaH0zNqKMwzMpZoVs7MCKM5PCvjjulh57u1Qufkvk0P35eHYnr4Kgzd+PBRqOaHL2BqTBBfJ/yR9X8Dpt4M8U1YKkPEBytriPg2"
                + "JIIHeyBxtG2rYSpTkJ64OJVloVbK5O2eAlJfwlMNVJmE1D6IhEIXJmxGKWGttHuXu9qw3aW11VR1QJyruSoJitS8GqwyEGlCGkqWnwjQOBlMNV"
                + "slTZy+MLKGDg9qgubK8WojkW5+YpOqq/2AC8iC6yUsQIt6Eetkk69BvjT9RICRTb+jg/PdCwOs8nY1yVv9cjLjO9wN7n0DPGT3ovov04Fn0KyV"
                + "aMJz3gk/vEqmrYxJfkUnvvGFAUDk1LnEFZBsjFx+YsPLndCGrg1IXU1dKUBvGnPXhF02iDK9Lw1emZjU3omYfGEQ9mpuzV4bvlLqILC2HJm+Ur"
                + "JZwIxfKT31gPErY5O/1ypxk0Y76WPCKnwJbNOnX6fPFT8xCJ60GJfCwEwmfT/Zfoxhh/zKHJbkyF/HJrEkYPLDahbLDKVJX/jNOHUhQFblz9U4"
                + "loS4+okB0u1XTNB6j4m+kh3EBjPR/F0ey+xSzWMtd28cS+6m4ezGHFUvj3WI2EQWMEUmsg1QUo1kVNSom4ogXjhzWeYGXzhAGk4OsxmyiensQP"
                + "odqPc4Xy+fQYKbzz7YEQY0whITWqfaxsrj8TA3jN+b+lDErm6Y0oLKG8a0PKtdFxqsgwscxrTMVmqHlXaFw5CWUsMlDkNaSiYXOQxpKfskye1S"
                + "Wtbw9lF2S/WbKS2zlebDlJbZyk802HDyonbLXgAlrdKelt81c9oAh2zmtAOe2sxpudik9g3SJNNulcRMNt+MaUn+BAbt1r++jBLNmLYzezRT2h"
                + "x0gUT89jSo6OR3TzIKP7HAWhzfxbSTJ6SReXkGjWkBJNiMackgvUrGtA3lj2ZMyybsC2Tbzh1jWlC2GdMqlOGaMQ0ou5nSDnB5C6IV7xljWuYb"
                + "TaE5LRGR96U5bUGl8mJawMZnTHMpdMC7LS7GtE1yZEzL8bmrnSfE9xOcSiCbIS0ASpohLQOwVs+Ulpa1u6ugepSfICyXKzRjWq5yarjGtJSe4V"
                + "EtyGdZVTOm5R3gC/RBIjtsl9N2NtB2OW1ly223UAZnDu1yWjb1Nuk7zG8YIC4e0gQ1UgyGtCRfmj8zWpI7308fn+r/1soij8eARlTVDGhJsx2x"
                + "AS0AS9qib27PqgGNClTtEhrUS5oRrcFS35JZg+RYhw9c2oW0DgloTAvIWGPaBi5pxjQqmLRNJRbvI3NaAgfvvFs6G3mrGtOITZox7YAWbCgsWT"
                + "wupIHamNE+kCczGmCJEY0OXqiEZr28iDbp6IUCtiYb0oJU3JiWJtWyf6hk6OMXY1pmq6oLsNI+f7nFtA4HMKa0nEw+KaISqY9gLqfBEcyHCa72"
                + "BTtCph2mtLSHZPPxUVFYYBC3mAZQEpV2tuAjjGkj6EKAdtyuqBJ+Xz6odO4nSM4c4D2izJgWt5r2wRRWqP17yk1pk47JGmm4l/VSGhzKhDEt+Y"
                + "Qzp9Fxh3PtYtqhs0FyLx8mGtOCTh+NackhtWei4RmPptCcllxY2zKCfFs9GdMCqqRhTKtwPhMBx1rSlTClHTgBjiBa6e5pAd/4gU1o5ejoIE9q"
                + "GpfSIutvIKVJseNS2skaH8a0DaWSwNNL2UgY02b2nehEp9WHvotqhb6wYZFkhtHpvFb2Gea0DaWSGMTlsugwp6Vkq34iID39Cjqj1phMaWkDKI"
                + "hBXyOav8toG+7fsCfdP53JazwX0GD8k77AHLH57MDxTZjPkhB5VmfnklWY0PKHpIKY9Onptb6FtIDsMKTRyV9M+vHCCWhMC8CSWPTR7SQ3p9G/"
                + "IHE5DQomseBnE++8W0dreauuyec4cSmtgxoY0wLkY+HfNf6F4eOCSWwqsbi9EVpJA28xbYBq7s5sEqa0A8K8oa5kJb+QBtJvRvvAK8xohCX3kB"
                + "PciOpotq/LaBMM71DItkhjWuCfIYMKV2qn+qFd25i2yecPrLTB4BbTekaJfwEEgnszJiYAAA==", long
        ),
    ]

    private static func bytes(_ base64: String) throws -> [UInt8] { Array(try #require(Data(base64Encoded: base64))) }

    @Test func blocksOfEveryKind() throws {
        for file in Self.files {
            let text = try Gzip.unpackedIfPacked(Self.bytes(file.packed), path: "x")
            #expect(String(decoding: text, as: UTF8.self) == file.text, "\(file.kind)")
        }
    }

    @Test func membersFollowEachOther() throws {
        let all = try Self.files.flatMap { try Self.bytes($0.packed) }
        let text = try Gzip.unpackedIfPacked(all, path: "x")
        #expect(String(decoding: text, as: UTF8.self) == Self.files.map(\.text).joined())
    }

    @Test func otherFilesStayAsTheyAre() throws {
        for bytes in [[], [0x1F], Array("{}".utf8), [0x1F, 0x8C, 8]] as [[UInt8]] {
            #expect(try Gzip.unpackedIfPacked(bytes, path: "x") == bytes)
        }
    }

    private func failure(_ bytes: [UInt8], limit: Int = 1 << 20) -> SigmaError? {
        do {
            _ = try Gzip.unpackedIfPacked(bytes, path: "file.gz", limit: limit)
            return nil
        } catch { return error as? SigmaError }
    }

    @Test func filesThatEndEarly() throws {
        for file in Self.files {
            let bytes = try Self.bytes(file.packed)
            for count in 2..<bytes.count where count < 200 || count % 37 == 0 || count > bytes.count - 20 {
                let error = failure(Array(bytes.prefix(count)))
                #expect(error?.kind == .damaged && error?.path == "file.gz", "\(file.kind), \(count) bytes")
            }
        }
    }

    /// A bit that is another one is found by the blocks, the length or the checksum; only the header's time and name don't matter.
    @Test func damagedFiles() throws {
        for file in Self.files {
            let bytes = try Self.bytes(file.packed)
            let body = file.kind == "all header fields" ? 32 : 10
            for place in body..<bytes.count where place < 300 || place % 29 == 0 || place > bytes.count - 10 {
                var damaged = bytes
                damaged[place] ^= 1 << UInt8(place % 8)
                if let text = try? Gzip.unpackedIfPacked(damaged, path: "x", limit: 1 << 20) {
                    // Bits behind the last block's end.
                    #expect(String(decoding: text, as: UTF8.self) == file.text, "\(file.kind), byte \(place)")
                } else {
                    #expect(failure(damaged)?.kind == .damaged)
                }
            }
        }
    }

    @Test func theLimitHolds() throws {
        let bytes = try Self.bytes(Self.files.last!.packed)
        let count = Self.long.utf8.count
        #expect(failure(bytes, limit: count) == nil)
        #expect(failure(bytes, limit: count - 1)?.kind == .damaged)
        #expect(failure(try Self.bytes(Self.files[0].packed), limit: 5)?.kind == .damaged)
    }
}
