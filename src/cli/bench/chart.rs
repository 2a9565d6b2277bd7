//! Curves as SVG.

use anyhow::anyhow;
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::*,
};

const SIZE: (u32, u32) = (760, 280);
const COLORS: [RGBColor; 5] = [
    RGBColor(0x1f, 0x6f, 0xb4),
    RGBColor(0xd9, 0x5f, 0x02),
    RGBColor(0x1b, 0x9e, 0x77),
    RGBColor(0x75, 0x70, 0xb3),
    RGBColor(0x66, 0x66, 0x66),
];
const FONT: (&str, u32) = ("sans-serif", 13);

/// A line of a chart.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// How far apart values of x are drawn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Along {
    /// By their difference, from 0 on.
    Differences,
    /// By their ratio, each with a mark.
    Magnitudes,
}

/// What a chart is of.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    /// What x is, and how a value of it is written.
    pub(super) x: (&'static str, fn(f64) -> String),
    /// The same of y.
    pub(super) y: (&'static str, fn(f64) -> String),
    pub(super) along: Along,
    pub(super) curves: Vec<Curve>,
}

impl Chart {
    /// The chart, as an SVG element.
    ///
    /// # Errors
    ///
    /// When it cannot be drawn.
    pub(super) fn svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let x = self.curves.iter().flat_map(|curve| &curve.points);
            let x = x.map(|point| point.0);
            let right = x.clone().fold(1e-9, f64::max);
            let drawn = match self.along {
                Along::Differences => self.draw(&root, 0.0..right),
                Along::Magnitudes => {
                    let left = x.fold(right, f64::min);
                    // Marks at the ends are whole.
                    self.draw(&root, (left / 1.1..right * 1.1).log_scale())
                }
            };
            drawn
                .and_then(|()| root.present().map_err(Into::into))
                .map_err(|error| anyhow!("cannot draw {}: {error}", self.title))?;
        }
        Ok(svg)
    }

    /// Where the names of the curves cover none of them: above the lower end.
    fn free_corner(&self) -> SeriesLabelPosition {
        let mut ends = [0.0_f64; 2];
        for curve in &self.curves {
            for (end, point) in ends
                .iter_mut()
                .zip([curve.points.first(), curve.points.last()])
            {
                *end = end.max(point.map_or(0.0, |point| point.1));
            }
        }
        if ends[0] > ends[1] {
            SeriesLabelPosition::UpperRight
        } else {
            SeriesLabelPosition::UpperLeft
        }
    }

    fn draw<'a, X>(
        &self,
        root: &DrawingArea<SVGBackend<'a>, Shift>,
        along: impl AsRangedCoord<Value = f64, CoordDescType = X>,
    ) -> Result<(), Box<dyn std::error::Error + 'a>>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let highest = points.map(|point| point.1).fold(1e-9, f64::max);
        // Room for the names of the curves.
        let above = if self.curves.len() > 1 { 1.4 } else { 1.08 };
        let top = highest * above;
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, ("sans-serif", 16))
            .margin(8)
            .margin_right(24)
            .x_label_area_size(40)
            .y_label_area_size(72)
            .build_cartesian_2d(along, 0.0..top)?;
        let (x, y) = (self.x.1, self.y.1);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.1))
            .axis_style(BLACK.mix(0.5))
            .label_style(FONT)
            .axis_desc_style(FONT)
            .y_labels(6)
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .x_label_formatter(&|value| x(*value))
            .y_label_formatter(&|value| y(*value))
            .draw()?;
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(
                    curve.points.iter().copied(),
                    color.stroke_width(2),
                ))?
                .label(&curve.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
                });
            if let Along::Magnitudes = self.along {
                let marks = curve.points.iter();
                chart.draw_series(marks.map(|at| Circle::new(*at, 3, color.filled())))?;
            }
        }
        if self.curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(self.free_corner())
                .label_font(FONT)
                .background_style(WHITE.mix(0.8))
                .draw()?;
        }
        Ok(())
    }
}
