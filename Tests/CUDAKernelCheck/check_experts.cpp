// Experts: few rows expert by expert, many rows sorted into tiles. Both give the same bits, near the exact sum.
#include "check.h"
#include "sigma_kernels.h"

namespace {

struct Layer {
    std::vector<Matrix> gate, up, down;
    std::vector<Memory<unsigned char> *> memory;
    std::vector<sigma_device> addresses;
    sigma_device up_offset = 0, down_offset = 0;

    Layer(int experts, int hidden, int width, const int types[3], uint64_t seed) {
        for (int e = 0; e < experts; e++) {
            gate.emplace_back(types[0], width, hidden, seed + 10 * e);
            up.emplace_back(types[1], width, hidden, seed + 10 * e + 1);
            down.emplace_back(types[2], hidden, width, seed + 10 * e + 2);
            up_offset = (gate[e].bytes.size() + 63) / 64 * 64;
            down_offset = (up_offset + up[e].bytes.size() + 63) / 64 * 64;
            std::vector<unsigned char> record(down_offset + down[e].bytes.size());
            memcpy(&record[0], gate[e].bytes.data(), gate[e].bytes.size());
            memcpy(&record[up_offset], up[e].bytes.data(), up[e].bytes.size());
            memcpy(&record[down_offset], down[e].bytes.data(), down[e].bytes.size());
            memory.push_back(new Memory<unsigned char>(record));
            addresses.push_back(memory.back()->address());
        }
    }
    ~Layer() {
        for (auto *own : memory) delete own;
    }
};

double silu_of(double x) { return x / (1 + exp(-x)); }

void check_layer(int experts, int hidden, int width, const int types[3], int rows, int choices, int shared_width, int shared_type,
                 uint64_t seed) {
    const Layer layer(experts, hidden, width, types, seed);
    const Memory<sigma_device> records(layer.addresses);
    const int slots = rows * choices;
    const Memory<float> normed(uneven_row((size_t)rows * hidden, seed + 3, 2)), weights(uneven_row((size_t)slots, seed + 4, 1));
    Memory<int> chosen((size_t)slots);
    for (int row = 0; row < rows; row++)
        for (int c = 0; c < choices; c++) chosen[row * choices + c] = (int)((next_random(seed) % 3 + row * row + c) % experts);
    const std::vector<float> before = uneven_row((size_t)rows * hidden, seed + 5, 1);

    // Prepared input.
    const sigma_cuda_input floats = {normed.address(), 0, SIGMA_CUDA_FLOATS, hidden, 0, 0};
    Memory<sigma_cuda_block> blocks((size_t)rows * (hidden / 32));
    Memory<float> copies((size_t)rows * hidden);
    sigma_cuda_prepare prepare = {floats, copies.address(), hidden % 32 ? 0 : blocks.address(), rows, 0};
    LAUNCH(prepare, prepare);
    const sigma_cuda_input prepared = {copies.address(), blocks.address(), SIGMA_CUDA_PREPARED, hidden, 0, 0};

    // Shared experts, by the ordinary products.
    const Matrix shared_gate(shared_type, shared_width, hidden, seed + 6), shared_up(shared_type, shared_width, hidden, seed + 7),
        shared_down(shared_type, hidden, shared_width, seed + 8);
    const Memory<unsigned char> shared_gate_bytes(shared_gate.bytes), shared_up_bytes(shared_up.bytes), shared_down_bytes(shared_down.bytes);
    Memory<float> shared_gates((size_t)rows * shared_width), shared_ups((size_t)rows * shared_width), shared_out((size_t)rows * hidden);
    if (shared_width) {
        sigma_cuda_multiply m = {};
        m.input = prepared;
        m.products[0] = {shared_gate.at(shared_gate_bytes.address()), 0, shared_gates.address(), shared_width, 0};
        m.products[1] = {shared_up.at(shared_up_bytes.address()), 0, shared_ups.address(), shared_width, 0};
        m.count = 2;
        m.rows = rows;
        LAUNCH(multiply, m);
        Memory<float> gated((size_t)rows * shared_width);
        Memory<sigma_cuda_block> gated_blocks((size_t)rows * (shared_width / 32));
        sigma_cuda_prepare gate = {{shared_gates.address(), shared_ups.address(), SIGMA_CUDA_GATED, shared_width, 0, 0},
                                   gated.address(), shared_width % 32 ? 0 : gated_blocks.address(), rows, 0};
        LAUNCH(prepare, gate);
        sigma_cuda_multiply d = {};
        d.input = {gated.address(), gated_blocks.address(), SIGMA_CUDA_PREPARED, shared_width, 0, 0};
        d.products[0] = {shared_down.at(shared_down_bytes.address()), 0, shared_out.address(), hidden, 0};
        d.count = 1;
        d.rows = rows;
        LAUNCH(multiply, d);
    }

    // Many rows.
    Memory<float> gates((size_t)slots * width), ups((size_t)slots * width), outputs((size_t)slots * hidden), many(before);
    if (slots) {
        const int tile_count = sigma_cuda_expert_tile_count(slots, experts);
        Memory<int> order((size_t)slots);
        Memory<sigma_cuda_expert_tile> tiles((size_t)tile_count);
        sigma_cuda_sort sort = {chosen.address(), order.address(), tiles.address(), slots, experts, tile_count, 0};
        LAUNCH(sort, sort);
        int next = 0;
        for (int i = 0; i < tile_count; i++) {
            if (tiles[i].count == 0) continue;
            expect(tiles[i].first == next && tiles[i].count <= SIGMA_CUDA_TILE_ROWS, "tile", i, tiles[i].first, next);
            for (int s = 0; s < tiles[i].count; s++) {
                const int slot = order[tiles[i].first + s];
                expect(slot >= 0 && slot < slots && chosen[slot] == tiles[i].expert, "slot of a tile", i, s, slot);
                expect(s == 0 || order[tiles[i].first + s - 1] < slot, "slots in order", i, s, slot);
            }
            next += tiles[i].count;
        }
        expect(next == slots, "all slots", next, slots);
        sigma_cuda_multiply m = {};
        m.input = prepared;
        m.products[0] = {layer.gate[0].at(0), 0, gates.address(), width, 0};
        m.products[1] = {layer.up[0].at(layer.up_offset), 0, ups.address(), width, 0};
        m.records = records.address();
        m.order = order.address();
        m.tiles = tiles.address();
        m.count = 2;
        m.rows = rows;
        m.tile_count = tile_count;
        m.input_divisor = choices;
        LAUNCH(multiply, m);
        Memory<float> gated((size_t)slots * width);
        Memory<sigma_cuda_block> gated_blocks((size_t)slots * (width / 32));
        sigma_cuda_prepare gate = {{gates.address(), ups.address(), SIGMA_CUDA_GATED, width, 0, 0},
                                   gated.address(), width % 32 ? 0 : gated_blocks.address(), slots, 0};
        LAUNCH(prepare, gate);
        sigma_cuda_multiply d = m;
        d.input = {gated.address(), gated_blocks.address(), SIGMA_CUDA_PREPARED, width, 0, 0};
        d.products[0] = {layer.down[0].at(layer.down_offset), 0, outputs.address(), hidden, 0};
        d.count = 1;
        d.input_divisor = 1;
        LAUNCH(multiply, d);
    }
    sigma_cuda_combine combine = {outputs.address(), weights.address(), shared_width ? shared_out.address() : 0, many.address(), rows, choices, hidden, 0};
    LAUNCH(combine, combine);

    // A few rows at a time: the same bits.
    for (int first = 0; first < rows; first += 3) {
        const int count = rows - first < 3 ? rows - first : 3;
        Memory<float> own_gates((size_t)count * choices * width), own_ups((size_t)count * choices * width);
        Memory<float> few(std::vector<float>(before.begin() + (size_t)first * hidden, before.begin() + (size_t)(first + count) * hidden));
        if (choices) {
            sigma_cuda_expert_gate g = {floats, records.address(), chosen.address((size_t)first * choices), own_gates.address(), own_ups.address(),
                                        layer.gate[0].at(0), layer.up[0].at(layer.up_offset), count, choices};
            g.input.values = normed.address((size_t)first * hidden);
            LAUNCH(expert_gate, g);
            for (int i = 0; i < count * choices * width; i++) {
                expect(same_bits(own_gates[i], gates[(size_t)first * choices * width + i]), "gate", first, i);
                expect(same_bits(own_ups[i], ups[(size_t)first * choices * width + i]), "up", first, i);
            }
        }
        sigma_cuda_expert_down d = {};
        d.records = records.address();
        d.chosen = chosen.address((size_t)first * choices);
        d.weights = weights.address((size_t)first * choices);
        d.gate = own_gates.address();
        d.up = own_ups.address();
        d.residual = few.address();
        d.rows = count;
        d.choices = choices;
        d.down = layer.down[0].at(layer.down_offset);
        if (shared_width) {
            d.shared_gate = shared_gates.address((size_t)first * shared_width);
            d.shared_up = shared_ups.address((size_t)first * shared_width);
            d.shared = shared_down.at(shared_down_bytes.address());
        }
        LAUNCH(expert_down, d);
        for (int i = 0; i < count * hidden; i++) expect(same_bits(few[i], many[(size_t)first * hidden + i]), "few rows", first, i);
    }

    // Against fp64: 8-bit activations twice, so a wide bound (half a step of 127 of the largest value, twice).
    const bool quantizes = sigma_cuda_is_packed(types[0]) || sigma_cuda_is_packed(shared_type);
    double error = 0, power = 0;
    for (int row = 0; row < rows; row++) {
        std::vector<double> sum(hidden);
        const auto add = [&](const Matrix &g, const Matrix &u, const Matrix &d, double weight, int inner) {
            std::vector<double> gated(inner);
            for (int j = 0; j < inner; j++) {
                double a = 0, b = 0;
                for (int c = 0; c < hidden; c++) {
                    a += (double)g.values[(size_t)j * hidden + c] * normed[(size_t)row * hidden + c];
                    b += (double)u.values[(size_t)j * hidden + c] * normed[(size_t)row * hidden + c];
                }
                gated[j] = silu_of(a) * b;
            }
            for (int c = 0; c < hidden; c++)
                for (int j = 0; j < inner; j++) sum[c] += weight * gated[j] * d.values[(size_t)c * inner + j];
        };
        for (int c = 0; c < choices; c++) {
            const int e = chosen[row * choices + c];
            add(layer.gate[e], layer.up[e], layer.down[e], weights[row * choices + c], width);
        }
        if (shared_width) add(shared_gate, shared_up, shared_down, 1, shared_width);
        for (int c = 0; c < hidden; c++) {
            const double found = (double)many[(size_t)row * hidden + c] - before[(size_t)row * hidden + c];
            error += (found - sum[c]) * (found - sum[c]);
            power += sum[c] * sum[c];
        }
    }
    expect_near(sqrt(error / power), 0, quantizes ? 0.03 : 2e-6, "relative error of a layer", rows, choices, shared_width);
}

}  // namespace

void check_experts() {
    const int packed[3] = {SIGMA_Q4_K, SIGMA_Q8_0, SIGMA_Q6_K}, one_scale[3] = {SIGMA_Q4_0, SIGMA_Q4_0, SIGMA_Q8_0};
    const int floats[3] = {SIGMA_F32, SIGMA_BF16, SIGMA_F16}, mixed[3] = {SIGMA_Q8_0, SIGMA_F32, SIGMA_BF16};
    begin("experts");
    check_layer(5, 256, 512, packed, 7, 1, 0, SIGMA_Q8_0, 1);
    check_layer(3, 256, 256, packed, 150, 1, 0, SIGMA_Q8_0, 2);
    check_layer(9, 256, 256, packed, 12, 4, 512, SIGMA_Q4_K, 3);
    check_layer(2, 96, 64, one_scale, 5, 2, 32, SIGMA_F32, 4);
    begin("experts of floats");
    check_layer(3, 48, 40, floats, 10, 2, 0, SIGMA_F32, 5);
    check_layer(4, 52, 20, floats, 70, 1, 28, SIGMA_F16, 6);
    check_layer(2, 96, 64, mixed, 5, 1, 32, SIGMA_Q4_0, 7);
    begin("dense layers");
    check_layer(1, 256, 256, packed, 9, 0, 512, SIGMA_Q4_K, 8);
    check_layer(1, 48, 40, floats, 9, 0, 44, SIGMA_BF16, 9);
}
